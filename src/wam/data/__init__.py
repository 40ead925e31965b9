"""Robot data in and out: LeRobot data sets, statistics, latent cache, windows."""
