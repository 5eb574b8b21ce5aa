/* A clock that depends only on the program. `instructions.py` preloads it.

   Each reading is one microsecond after the previous one. Waiting for a timer takes no
   time but moves the clock forward. So the program does the same in every run, even if
   it runs slowly. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <time.h>

static int64_t now = INT64_C(1000000000000); /* nanoseconds */

int clock_gettime(clockid_t clock, struct timespec *time) {
  (void)clock;
  now += 1000;
  time->tv_sec = now / 1000000000;
  time->tv_nsec = now % 1000000000;
  return 0;
}

int epoll_pwait(int epoll, struct epoll_event *events, int most, int timeout,
                const sigset_t *mask) {
  static int (*wait)(int, struct epoll_event *, int, int, const sigset_t *);
  if (wait == NULL)
    wait = (int (*)(int, struct epoll_event *, int, int, const sigset_t *))dlsym(
        RTLD_NEXT, "epoll_pwait");
  int ready = wait(epoll, events, most, timeout < 0 ? -1 : 0, mask);
  if (ready == 0 && timeout > 0) now += (int64_t)timeout * 1000000;
  return ready;
}

int epoll_wait(int epoll, struct epoll_event *events, int most, int timeout) {
  return epoll_pwait(epoll, events, most, timeout, NULL);
}
