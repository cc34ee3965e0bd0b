"""Works on every frame all day, in a thread per camera: timelapse, startrails, virtual long exposure."""
