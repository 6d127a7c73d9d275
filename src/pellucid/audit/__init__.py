"""What could make a result worth less than it looks: training data that holds the examination."""
