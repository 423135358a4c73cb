/* A team of threads for one call: they take the clients in order, and stop at a deadline.
 *
 * No thread outlives the call, so a process may fork between two calls.
 */
#ifndef FEDSCAPE_TEAM_H
#define FEDSCAPE_TEAM_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

enum { FINISHED = -1, NO_MEMORY = 1, ROW_OUT_OF_RANGE = 2, LABEL_OUT_OF_RANGE = 3 };

typedef struct Team Team;
struct Team {
    const void *job;
    int64_t clients;
    int64_t deadline; /* nanoseconds of the monotonic clock */
    atomic_llong next;
    atomic_int error;
    /* Make what a thread works in (NULL without memory). Train a client until it has taken its steps or time is up;
     * FINISHED says that it had taken them before. */
    void *(*prepare)(const void *job);
    int (*train)(const void *job, void *own, int64_t client, Team *team);
};

static inline int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Whether a client's training should pause: the time is up, or another thread failed. */
static inline int is_over(Team *team) {
    return atomic_load_explicit(&team->error, memory_order_relaxed) != 0 || now() >= team->deadline;
}

static void *take_part(void *argument) {
    Team *team = argument;
    void *own = team->prepare(team->job);
    int error = own ? 0 : NO_MEMORY;
    while (!error) { /* at least one client, however short the time: every call goes on */
        int64_t client = atomic_fetch_add(&team->next, 1);
        if (client >= team->clients) break;
        error = team->train(team->job, own, client, team);
        if (error == FINISHED)
            error = 0;
        else if (is_over(team))
            break;
    }
    if (error) atomic_store(&team->error, error);
    free(own);
    return NULL;
}

/* Let `threads` threads, the calling one among them, train the clients; return an error or 0. */
static int work_together(Team *team, int64_t threads) {
    enum { MOST = 1024 };
    pthread_t helpers[MOST];
    int64_t count = 0;
    sigset_t every, before;
    if (threads > team->clients) threads = team->clients;
    if (threads > MOST) threads = MOST;
    sigfillset(&every);
    pthread_sigmask(SIG_SETMASK, &every, &before); /* signals are for the calling thread */
    while (count < threads - 1 && pthread_create(&helpers[count], NULL, take_part, team) == 0) count++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    take_part(team);
    for (int64_t i = 0; i < count; i++) pthread_join(helpers[i], NULL);
    return atomic_load(&team->error);
}

#endif
