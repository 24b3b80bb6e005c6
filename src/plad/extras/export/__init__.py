"""What a run hands over: its pairs as trainers read them, and the student as a folder, a file or on the hub."""
