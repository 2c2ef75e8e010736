"""What did a training say about every example, epoch by epoch, and what follows from that without another one?"""
