"""Many runs. This folder owns the grid of a sweep, the plan with its costs, the shared inputs of its runs, the runs that a
look asks for, and the processes or jobs of Slurm that do the runs. A run is a command of another script, in a folder of
its own.

Others use `plan.Sweep`, made from `plan.SweepSettings`, `slurm.SlurmSweep`, and `looks.runs_so_far`.
"""
