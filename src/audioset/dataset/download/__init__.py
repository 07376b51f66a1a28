"""The audio behind the lists: fetched, cut, checked and accounted for."""
