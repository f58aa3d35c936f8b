"""Metrics besides loss and accuracy, `metrics=[f1,auroc]`, for validation and test."""
