"""Cache, files, processes, threads and memory."""
