"""Jobs on other machines: through Slurm, or as a file that another engine takes."""
