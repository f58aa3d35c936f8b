"""Metrics of the final and of every validation besides loss and accuracy, as `metrics=[f1,auroc]`."""
