"""System call numbers, from the kernel's headers: those that the filter lets pass, some on conditions."""

from __future__ import annotations


def _numbers(table: str) -> dict[str, int]:
    words = table.split()
    return {name: int(number) for name, number in zip(words[::2], words[1::2], strict=True)}


X86_64 = _numbers("""
    read 0  write 1  open 2  close 3  stat 4  fstat 5  lstat 6  poll 7  lseek 8  mmap 9  mprotect 10
    munmap 11  brk 12  rt_sigaction 13  rt_sigprocmask 14  rt_sigreturn 15  pread64 17  pwrite64 18
    readv 19  writev 20  access 21  pipe 22  select 23  sched_yield 24  mremap 25  msync 26  mincore 27
    madvise 28  dup 32  dup2 33  pause 34  nanosleep 35  getitimer 36  alarm 37  setitimer 38  getpid 39
    sendto 44  recvfrom 45  shutdown 48  exit 60  uname 63  flock 73  fsync 74  fdatasync 75  truncate 76
    ftruncate 77  getcwd 79  chdir 80  fchdir 81  rename 82  mkdir 83  rmdir 84  creat 85  link 86
    unlink 87  symlink 88  readlink 89  chmod 90  fchmod 91  umask 95  gettimeofday 96  getrlimit 97
    getrusage 98  sysinfo 99  times 100  getuid 102  getgid 104  geteuid 107  getegid 108  getppid 110
    getpgrp 111  getgroups 115  getresuid 118  getresgid 120  getpgid 121  getsid 124  rt_sigpending 127
    rt_sigtimedwait 128  rt_sigsuspend 130  sigaltstack 131  statfs 137  fstatfs 138  arch_prctl 158
    gettid 186  futex 202  sched_getaffinity 204  getdents64 217  set_tid_address 218
    restart_syscall 219  clock_gettime 228  clock_getres 229  clock_nanosleep 230  exit_group 231
    epoll_create 213  epoll_wait 232  epoll_ctl 233  openat 257  mkdirat 258  fstatat 262  unlinkat 263
    renameat 264  linkat 265  symlinkat 266  readlinkat 267  fchmodat 268  faccessat 269  pselect6 270
    ppoll 271  set_robust_list 273  get_robust_list 274  utimensat 280  epoll_pwait 281  eventfd2 290
    epoll_create1 291  dup3 292  pipe2 293  renameat2 316  getrandom 318  membarrier 324  statx 332
    rseq 334  faccessat2 439  close_range 436  epoll_pwait2 441  getsockname 51  getpeername 52
    getsockopt 55  time 201  getcpu 309  sched_getparam 143  sched_getscheduler 145  wait4 61  waitid 247
    clone 56  fcntl 72  ioctl 16  kill 62  prctl 157  prlimit64 302  socketpair 53  tgkill 234
    clone3 435
""")

AARCH64 = _numbers("""
    read 63  write 64  close 57  fstat 80  lseek 62  mmap 222  mprotect 226  munmap 215  brk 214
    rt_sigaction 134  rt_sigprocmask 135  rt_sigreturn 139  pread64 67  pwrite64 68  readv 65  writev 66
    sched_yield 124  mremap 216  msync 227  mincore 232  madvise 233  dup 23  nanosleep 101
    getitimer 102  setitimer 103  getpid 172  sendto 206  recvfrom 207  shutdown 210  exit 93  uname 160
    flock 32  fsync 82  fdatasync 83  truncate 45  ftruncate 46  getcwd 17  chdir 49  fchdir 50
    fchmod 52  umask 166  gettimeofday 169  getrlimit 163  getrusage 165  sysinfo 179  times 153
    getuid 174  getgid 176  geteuid 175  getegid 177  getppid 173  getgroups 158  getresuid 148
    getresgid 150  getpgid 155  getsid 156  rt_sigpending 136  rt_sigtimedwait 137  rt_sigsuspend 133
    sigaltstack 132  statfs 43  fstatfs 44  gettid 178  futex 98  sched_getaffinity 123  getdents64 61
    set_tid_address 96  restart_syscall 128  clock_gettime 113  clock_getres 114  clock_nanosleep 115
    exit_group 94  epoll_ctl 21  openat 56  mkdirat 34  fstatat 79  unlinkat 35  renameat 38  linkat 37
    symlinkat 36  readlinkat 78  fchmodat 53  faccessat 48  pselect6 72  ppoll 73  set_robust_list 99
    get_robust_list 100  utimensat 88  epoll_pwait 22  eventfd2 19  epoll_create1 20  dup3 24  pipe2 59
    renameat2 276  getrandom 278  membarrier 283  statx 291  rseq 293  faccessat2 439  close_range 436
    epoll_pwait2 441  getsockname 204  getpeername 205  getsockopt 209  getcpu 168  sched_getparam 121
    sched_getscheduler 120  wait4 260  waitid 95  clone 220  fcntl 25  ioctl 29  kill 129  prctl 167
    prlimit64 261  socketpair 199  tgkill 131  clone3 435
""")
