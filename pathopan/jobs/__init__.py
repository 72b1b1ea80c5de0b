"""A run cut into jobs for a cluster: one stage of one slide each. Together they leave the files that one run leaves."""
