"""Speed and memory, measured side by side in one run; recorded results lie beside the scripts."""
