"""The command line: `scalperctl`. One module a group of commands; `main` dispatches, `arguments` says what there is.

Read-only commands import no numba: they start in a fraction of a second and read shared memory without asking anybody.
"""
