"""What `capture` is made of: attention, ablations, faithfulness and region features."""
