"""The story of customers' alerts: random clients of two servers, and the model of each of their customers."""
