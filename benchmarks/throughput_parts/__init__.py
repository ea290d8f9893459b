"""The parts of `benchmarks/throughput.py`: workloads, contenders, the ideal they are held against, and the figures."""
