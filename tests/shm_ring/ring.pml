/* The protocol of shm_ring/layout.py, checked exhaustively: two writers that may die at every step and carry on after
   each other, and readers that look at any moment.

   Memory is weak, as on ARM: a store goes into the writer's buffer and reaches memory later, in any order, except that
   stores to one location keep theirs (partial store order); a release fence waits for the buffer to empty. A reader's
   loads between two acquire fences happen in any order. Leaving one piece out (-DNO_...) must give an error; test_model.py
   runs them all.

   -DENDING models the end of a generation instead: the last writer retires the ring, and who sees that must also see
   the last head, or it leaves frames unread.

   A frame is three words: p0 = its sequence, p1 and p2 = a stamp that differs for every attempt to write it. A writer's
   death releases its lock after its stores have arrived, as the kernel does. */

#ifndef SLOTS
#define SLOTS 2
#endif
#ifndef FRAMES
#define FRAMES 4          /* two laps: every slot is overwritten */
#endif
#ifndef CRASHES
#define CRASHES 2
#endif
#ifdef NO_R1
#define R1_LEFT_OUT true
#else
#define R1_LEFT_OUT false
#endif
#ifdef NO_R3
#define R3_LEFT_OUT true
#else
#define R3_LEFT_OUT false
#endif
#ifdef NO_HEAD_CHECK
#define HEAD_CHECK_LEFT_OUT true
#else
#define HEAD_CHECK_LEFT_OUT false
#endif
#define HEAD 0
#define WORD(s) (1 + (s))
#define P0(s) (1 + SLOTS + (s))
#define P1(s) (1 + 2 * SLOTS + (s))
#define P2(s) (1 + 3 * SLOTS + (s))
#define STATE (1 + 4 * SLOTS)
#define LOCATIONS (2 + 4 * SLOTS)

byte memory[LOCATIONS];
bool buffered[2 * LOCATIONS];   /* per writer: a store that has not arrived yet */
byte value[2 * LOCATIONS];
byte waiting[2];                /* how many of them */
byte crashes = 0;
byte attempts = 0;
bool locked = false;

/* One writer's store buffer: stores arrive in any order. */
proctype Arrive(byte me) {
    byte at;
end:
    do
    :: atomic { waiting[me] > 0 ->
        at = 0;
        do
        :: buffered[me * LOCATIONS + at] -> break
        :: at < LOCATIONS - 1 -> at++
        :: else -> break                      /* a choice that led nowhere; the others explore the rest */
        od;
        if
        :: buffered[me * LOCATIONS + at] ->
            memory[at] = value[me * LOCATIONS + at];
            buffered[me * LOCATIONS + at] = false;
            waiting[me]--
        :: else
        fi;
        at = 0
      }
    od
}

inline may_die() {
    if
    :: true
    :: atomic { crashes < CRASHES -> crashes++; goto died }
    fi
}

inline store(where, what) {
    may_die();
    atomic {
        !buffered[me * LOCATIONS + where];    /* stores to one location keep their order */
        buffered[me * LOCATIONS + where] = true;
        value[me * LOCATIONS + where] = what;
        waiting[me]++
    }
}

inline release_fence() { waiting[me] == 0 }

proctype Writer(byte me) {
    byte n, s, stamp;
    byte lives = 0;
start:
    do
    :: atomic {
#ifndef NO_LOCK
        !locked ->
#endif
        locked = true
       };
       /* Takeover: a frame that was whole when its writer died counts. */
       d_step {
           n = memory[HEAD];
#ifndef NO_ADOPT
           s = 0;
           do
           :: s < SLOTS ->
               if
               :: memory[WORD(s)] == 2 * memory[P0(s)] + 2 && memory[P0(s)] >= n -> n = memory[P0(s)] + 1
               :: else
               fi;
               s++
           :: else -> break
           od;
           memory[HEAD] = n;
#endif
           s = 0
       }
       do
       :: n < FRAMES ->
           s = n % SLOTS;
           d_step { attempts++; stamp = attempts }
           store(WORD(s), 2 * n + 1);                                                        /* W1 */
#ifndef NO_FENCE_A
           release_fence();
#endif
           store(P1(s), stamp);                                                              /* W2 */
           store(P0(s), n);
           store(P2(s), stamp);
#ifndef NO_FENCE_B
           release_fence();
#endif
           store(WORD(s), 2 * n + 2);                                                        /* W3 */
#ifndef NO_FENCE_E
           release_fence();
#endif
           store(HEAD, n + 1);                                                               /* W4 */
           d_step { n++; stamp = 0 }
       :: else -> goto finished
       od
    od;
died:
    atomic { waiting[me] == 0 -> locked = false; n = 0; s = 0; stamp = 0 }
    goto start;
finished:
#ifdef ENDING
#ifndef NO_FENCE_F
    release_fence();
#endif
    store(STATE, 1);
#endif
    atomic { waiting[me] == 0 -> locked = false }
}

inline look(which) {
    if
    :: which == 0 -> first = memory[WORD(s)]
    :: which == 1 -> a = memory[P0(s)]
    :: which == 2 -> b = memory[P1(s)]
    :: which == 3 -> c = memory[P2(s)]
    :: which == 4 -> last = memory[WORD(s)]
    fi
}

/* Loads `from`..`to` of the list in look(), in any order. */
inline unordered(from, to) {
    do
    :: from <= 0 && 0 <= to && !(done & 1)  -> atomic { look(0); done = done | 1 }
    :: from <= 1 && 1 <= to && !(done & 2)  -> atomic { look(1); done = done | 2 }
    :: from <= 2 && 2 <= to && !(done & 4)  -> atomic { look(2); done = done | 4 }
    :: from <= 3 && 3 <= to && !(done & 8)  -> atomic { look(3); done = done | 8 }
    :: from <= 4 && 4 <= to && !(done & 16) -> atomic { look(4); done = done | 16 }
    :: (from > 0 || (done & 1)) && (from > 1 || to < 1 || (done & 2)) && (from > 2 || to < 2 || (done & 4)) &&
       (from > 3 || to < 3 || (done & 8)) && (to < 4 || (done & 16)) -> break
    od
}

proctype Reader() {
    byte head, n, s, first, last, a, b, c, done;
end:
    do
    :: atomic { memory[HEAD] > 0 || HEAD_CHECK_LEFT_OUT ->
        if
        :: HEAD_CHECK_LEFT_OUT -> head = FRAMES
        :: else -> head = memory[HEAD]
        fi;
        n = head - 1
       };
       if                                     /* the newest, or the one that is about to be overwritten */
       :: true
       :: n > 0 -> n--
       fi;
       atomic { s = n % SLOTS; done = 0 }
#if defined(NO_FENCE_C) && defined(NO_FENCE_D)
       unordered(0, 4);
#elif defined(NO_FENCE_C)
       unordered(0, 3);                                                                      /* R1 and R2 mixed */
       unordered(4, 4);
#elif defined(NO_FENCE_D)
       unordered(0, 0);
       unordered(1, 4);                                                                      /* R2 and R3 mixed */
#else
       unordered(0, 0);                                                                      /* R1 */
       unordered(1, 3);                                                                      /* R2 */
       unordered(4, 4);                                                                      /* R3 */
#endif
       atomic {
           assert(HEAD_CHECK_LEFT_OUT || first >= 2 * n + 2);   /* what head announces is there, or overwritten */
           if
           :: ((first == 2 * n + 2 || R1_LEFT_OUT) && (last == 2 * n + 2 || R3_LEFT_OUT)) ->
              assert(a == n && b == c)     /* an accepted frame is frame n, of one attempt, whole */
           :: else
           fi;
           head = 0; n = 0; s = 0; first = 0; last = 0; a = 0; b = 0; c = 0; done = 0
       }
    od
}

/* Reads a generation to its end: first whether it has ended, then how many frames there are. */
proctype Follower() {
    byte head;
    bool ended;
end:
    do
    :: true ->
#ifdef NO_ACQUIRE_F
       head = memory[HEAD];
       ended = memory[STATE];
#else
       ended = memory[STATE];
       head = memory[HEAD];
#endif
       atomic {
           assert(!ended || head == FRAMES);
           head = 0; ended = false
       }
    od
}

init {
    atomic {
        run Arrive(0); run Arrive(1);
        run Writer(0); run Writer(1);
#ifdef ENDING
        run Follower()
#else
        run Reader()
#endif
    }
}
