"""What is reported after the fact: accuracy against the truth, and the summary of a run."""
