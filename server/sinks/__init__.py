"""Where metrics go: Prometheus, remote write, OpenMetrics, TensorBoard, Weights & Biases, MLflow.

Sinks read lines of the record; they import metrics and record, and nothing imports them but the simulator.
"""
