"""Films of saved pictures: timelapse and startrails, growing all day or built in one go."""
