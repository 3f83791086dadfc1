"""The merge: what one transaction does with one batch. Knows neither the sink that runs it nor what people run."""
