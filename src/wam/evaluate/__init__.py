"""Rollouts, statistics, baselines, comparisons and reports: every success rate that wam publishes comes from here."""
