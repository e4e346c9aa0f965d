"""The auditor: run a submission's own scorer and say what is legal, with witnesses.

This package imports nothing here, on purpose: the child process that runs the submission loads
`underpar.audit.child` without the rest of underpar being readable.
"""
