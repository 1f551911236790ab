"""WHAT is remembered: runs and fronts in MLflow. The only folder that imports mlflow."""
