"""A fitness coach: plan changes and weekly plans as JSON, coaching as text, from an athlete's training load."""
