"""`ranvier doctor`: what stands between this server and those who want to reach it, a line for each finding."""
