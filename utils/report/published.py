"""The table published with the project's original code: theirs, not measured here. ALBERT-base-v1, MNLI, 3 epochs, random
subsets, one run each.
"""

WORDS = "Theirs: ALBERT-base-v1, all of MNLI, 3 epochs, one run each"
SUSPECT = "their columns of {} are suspect (see docs/published.md)"
# Of results.csv, in the order in which the numbers stand below.
DEV = ("mnli", "mnli-mm")
ENTAILED = ("entailed lexical_overlap", "entailed subsequence", "entailed constituent")
NON_ENTAILED = ("non-entailed lexical_overlap", "non-entailed subsequence", "non-entailed constituent")

# Share of the data -> dev accuracies in %, fractions right of ENTAILED, fractions right of NON_ENTAILED.
PUBLISHED = {
    0.1: ((70.99337, 72.95565), (0.0196, 0.0146, 0.0118), (0.9776, 0.9858, 0.991)),
    0.2: ((74.51859, 76.38323), (0.1626, 0.0956, 0.0866), (0.8396, 0.862, 0.9364)),
    0.3: ((76.48497, 77.87835), (0.1046, 0.0866, 0.1164), (0.9012, 0.8958, 0.9098)),
    0.4: ((77.46306, 78.55980), (0.276, 0.2222, 0.1364), (0.7572, 0.775, 0.9138)),
    0.5: ((78.22720, 78.88527), (0.0596, 0.044, 0.042), (0.9548, 0.9498, 0.98)),
    0.6: ((78.90983, 79.69894), (0.0192, 0.021, 0.0184), (0.984, 0.9786, 0.9926)),
    0.7: ((79.21548, 79.99735), (0.0788, 0.0592, 0.056), (0.9466, 0.934, 0.974)),
    0.8: ((79.71472, 80.29902), (0.1324, 0.159, 0.1278), (0.9168, 0.8788, 0.9502)),
    0.9: ((79.88792, 80.66514), (0.4688, 0.377, 0.4382), (0.5936, 0.5972, 0.7106)),
    1.0: ((80.11207, 81.16354), (0.0562, 0.0552, 0.028), (0.9782, 0.9684, 0.9904)),
}
