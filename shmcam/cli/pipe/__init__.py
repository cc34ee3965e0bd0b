"""`shmcam pipe`: the pictures or the video of one camera on stdout, for programs that read a pipe."""
