/* One session for many threads, and one model for many sessions. */
#include "tap.h"

#include <stdatomic.h>

static optimize_context_t *context;
static optimize_tokenizer_t *tokenizer;
static optimize_model_t *minilm;
static optimize_session_t *session; /* a session of minilm */

static const char *const sentences[3] = {
    "A man is eating food.",
    "Someone has a meal.",
    "The stock market fell sharply on Monday after three days of losses.",
};

/* Threads that share a session get the same results as one thread that runs the session alone. */

#define THREADS 16

typedef struct turn_t {
    const optimize_session_t *session;
    const text_t *texts;               /* one for each kind of turn */
    const optimize_tensor_t *const *alone; /* the outputs for these texts if one thread runs alone */
    int first, right, wrong;
} turn_t;

static int run_in_turn(void *argument) {
    turn_t *turn = argument;
    int i, rounds = under_valgrind() ? 1 : 12;
    for (i = 0; i < rounds; i++) {
        const int which = (turn->first + i) % 3;
        const size_t size = optimize_tensor_size(turn->alone[which]);
        optimize_tensor_t *result = NULL;
        int same = run_text(turn->session, &turn->texts[which], MINILM_SENTENCE, NULL, &result, NULL) == OPTIMIZE_OK &&
                   optimize_tensor_size(result) == size &&
                   memcmp(optimize_tensor_data(result), optimize_tensor_data(turn->alone[which]), size) == 0;
        turn->right += same;
        turn->wrong += !same;
        optimize_tensor_free(result);
    }
    return 0;
}

TEST(threads_that_share_a_session_get_the_same_bits) {
    thrd_t threads[THREADS];
    turn_t turns[THREADS];
    text_t texts[3];
    optimize_tensor_t *alone[3] = {NULL, NULL, NULL};
    optimize_error_t *error = NULL;
    int i, count = under_valgrind() ? 3 : THREADS;
    for (i = 0; i < 3; i++) {
        texts[i] = i == 2 ? many_tokens(3, 40) : encode(tokenizer, sentences, (size_t)i + 1);
        CHECK_OK(run_text(session, &texts[i], MINILM_SENTENCE, NULL, &alone[i], &error));
    }
    for (i = 0; i < count; i++) {
        turns[i] = (turn_t){session, texts, (const optimize_tensor_t *const *)alone, i, 0, 0};
        NEED(thrd_create(&threads[i], run_in_turn, &turns[i]) == thrd_success);
    }
    for (i = 0; i < count; i++) {
        thrd_join(threads[i], NULL);
        CHECK(turns[i].right > 0);
        CHECK_INT(turns[i].wrong, 0);
    }
    for (i = 0; i < 3; i++) optimize_tensor_free(alone[i]), free_text(&texts[i]);
}

/* A cancel ends the run that it was passed to, and no other run of the session. */
typedef struct long_run_t {
    text_t text;
    atomic_int running, status;
} long_run_t;

static int run_long(void *argument) {
    long_run_t *run = argument;
    optimize_tensor_t *result = NULL;
    run->running = 1;
    run->status = (int)run_text(session, &run->text, MINILM_SENTENCE, NULL, &result, NULL);
    optimize_tensor_free(result);
    run->running = 0;
    return 0;
}

TEST(a_cancel_ends_one_run_of_a_shared_session) {
    long_run_t other = {.running = 0, .status = -1};
    optimize_cancel_t *cancel = NULL;
    optimize_error_t *error = NULL;
    optimize_tensor_t *result = NULL;
    text_t text = many_tokens(64, 128);
    firing_t firing;
    thrd_t thread;
    other.text = many_tokens(64, 128);
    NEED(thrd_create(&thread, run_long, &other) == thrd_success);
    while (!other.running && other.status < 0) thrd_yield();
    start_firing(&firing, 0.01);
    cancel = firing.cancel;
    optimize_call_t call = {.struct_size = sizeof call, .cancel = cancel};
    optimize_status_t status;
    do {
        optimize_tensor_free(result);
        result = NULL;
        status = run_text(session, &text, MINILM_SENTENCE, &call, &result, &error);
    } while (status == OPTIMIZE_OK);
    CHECK_FAILS(status, OPTIMIZE_CANCELLED, NULL);
    thrd_join(thread, NULL);
    CHECK_INT(other.status, OPTIMIZE_OK);
    end_firing(&firing);
    free_text(&text);
    free_text(&other.text);
}

static int run_own_session(void *argument) {
    turn_t *turn = argument;
    optimize_session_t *own = new_session(context, minilm);
    turn->session = own;
    run_in_turn(turn);
    optimize_session_free(own);
    return 0;
}

TEST(threads_with_their_own_sessions_share_a_model) {
    thrd_t threads[3];
    turn_t turns[3];
    text_t texts[3];
    optimize_tensor_t *alone[3] = {NULL, NULL, NULL};
    optimize_error_t *error = NULL;
    int i;
    for (i = 0; i < 3; i++) {
        texts[i] = encode(tokenizer, sentences, (size_t)i + 1);
        CHECK_OK(run_text(session, &texts[i], MINILM_SENTENCE, NULL, &alone[i], &error));
    }
    for (i = 0; i < 3; i++) {
        turns[i] = (turn_t){NULL, texts, (const optimize_tensor_t *const *)alone, i, 0, 0};
        NEED(thrd_create(&threads[i], run_own_session, &turns[i]) == thrd_success);
    }
    for (i = 0; i < 3; i++) {
        thrd_join(threads[i], NULL);
        CHECK(turns[i].right > 0);
        CHECK_INT(turns[i].wrong, 0);
    }
    for (i = 0; i < 3; i++) optimize_tensor_free(alone[i]), free_text(&texts[i]);
}

/* Threads that share an embedder get the same vectors as one thread that uses it alone. */

typedef struct embedding_t {
    const optimize_embedder_t *embedder;
    const optimize_tensor_t *alone;
    int wrong;
} embedding_t;

static int embed_in_turn(void *argument) {
    embedding_t *embedding = argument;
    int i;
    for (i = 0; i < 4; i++) {
        optimize_tensor_t *vectors = NULL;
        const size_t size = optimize_tensor_size(embedding->alone);
        embedding->wrong +=
            optimize_embedder_embed(embedding->embedder, sentences, 3, NULL, &vectors, NULL) != OPTIMIZE_OK ||
            optimize_tensor_size(vectors) != size ||
            memcmp(optimize_tensor_data(vectors), optimize_tensor_data(embedding->alone), size) != 0;
        optimize_tensor_free(vectors);
    }
    return 0;
}

TEST(threads_share_an_embedder) {
    thrd_t threads[4];
    embedding_t turns[4];
    optimize_embedder_t *embedder = NULL;
    optimize_tensor_t *alone = NULL;
    optimize_error_t *error = NULL;
    int i;
    CHECK_OK(optimize_embedder_new(context, minilm, tokenizer, NULL, NULL, &embedder, &error));
    CHECK_OK(optimize_embedder_embed(embedder, sentences, 3, NULL, &alone, &error));
    for (i = 0; i < 4; i++) {
        turns[i] = (embedding_t){embedder, alone, 0};
        NEED(thrd_create(&threads[i], embed_in_turn, &turns[i]) == thrd_success);
    }
    for (i = 0; i < 4; i++) {
        thrd_join(threads[i], NULL);
        CHECK_INT(turns[i].wrong, 0);
    }
    optimize_tensor_free(alone);
    optimize_embedder_free(embedder);
}

int main(void) {
    context = new_context();
    tokenizer = load_tokenizer();
    minilm = load_model(context, MINILM);
    session = new_session(context, minilm);
    RUN(threads_that_share_a_session_get_the_same_bits);
    RUN_UNLESS_VALGRIND(a_cancel_ends_one_run_of_a_shared_session);
    RUN_UNLESS_VALGRIND(threads_with_their_own_sessions_share_a_model);
    RUN_UNLESS_VALGRIND(threads_share_an_embedder);
    optimize_session_free(session);
    optimize_model_free(minilm);
    optimize_tokenizer_free(tokenizer);
    optimize_context_free(context);
    return tap_end();
}
