"""The joint panoptic network. One of the three rooms that know torch."""
