"""`make bench`: what each stage costs beside the plainest program that touches the same rows, in one run."""
