"""What vcrecon costs, measured. `make bench` runs all of it; README.md here says how to read it."""
