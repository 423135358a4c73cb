"""What happens on a client: data, models, local training, and the work and update types."""
