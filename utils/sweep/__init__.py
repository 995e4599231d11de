"""Many runs. This folder owns the grid of a sweep, the plan with its costs, the shared inputs of its runs, and the
processes that do the runs. A run is a command of another script, in a folder of its own.

Others use `plan.Sweep`, made from `plan.SweepSettings`.
"""
