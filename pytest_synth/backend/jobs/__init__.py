"""What runs jobs: the scheduler, single rollouts against task apps, and the two kinds of job."""
