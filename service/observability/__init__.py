"""What operators see of a running service: metrics, traces, stage times and logs."""
