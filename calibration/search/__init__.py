"""A search over encodings: what is tried, the race that stops what is beyond doubt worse, and the choice by a rule."""
