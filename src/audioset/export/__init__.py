"""Write a model in other formats, load it again and measure the difference."""
