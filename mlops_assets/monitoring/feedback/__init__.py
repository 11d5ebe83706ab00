"""What people said of answers, made into training rows and regression cases."""
