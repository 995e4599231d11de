"""What the scripts share. Imports point one way only; the table in the README says what may import what."""
