"""The process in which a stranger's script runs: a tiny world, a CPU that answers like a GPU.

Nothing here imports the rest of the package, so that the sandbox need only show this folder,
torch and numpy to the child. What was replaced is listed in the result: part of the evidence.
"""
