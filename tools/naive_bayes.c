/* naive_bayes.c -- the baseline beside every accuracy: multinomial naive Bayes over words.
 *
 *     naive_bayes TRAIN.csv TEST.csv...
 *
 * A word is a run of the letters a-z after lower-casing. P(word | class) = (count + 0.1) /
 * (words of the class + 0.1 * vocabulary); the class prior is its share of the rows; words that
 * training lacks are passed over. Prints one line for each test: rows and accuracy. The input is
 * what make_data writes: two quoted columns without quotes inside.
 */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CLASSES = 64, MAX_WORDS = 8192, MAX_LINE = 65536 };
static const double alpha = 0.1; /* smoothing, the value of the published baseline */

typedef struct bayes {
    char   words[MAX_WORDS][32], classes[MAX_CLASSES][80];
    double count[MAX_CLASSES][MAX_WORDS], total[MAX_CLASSES], rows[MAX_CLASSES], all_rows;
    int    word_count, class_count;
} bayes;

static void stop(const char *file, const char *why) {
    fprintf(stderr, "naive_bayes: %s: %s\n", file, why);
    exit(4);
}

/* Index of a name in a list of equal slots; grows the list if asked to; -1: not there. */
static int find(char *list, size_t slot, int *n, int max, const char *name, int grow) {
    for (int i = 0; i < *n; i++)
        if (strcmp(list + (size_t)i * slot, name) == 0) return i;
    if (!grow || *n == max) return -1;
    snprintf(list + (size_t)*n * slot, slot, "%s", name);
    return (*n)++;
}

/* The next word at *p, lower-cased, cut at 31 letters; 0 at the end. */
static int next_word(const char **p, char word[32]) {
    int n = 0;
    while (**p != 0 && !isalpha((unsigned char)**p)) (*p)++;
    for (; isalpha((unsigned char)**p); (*p)++)
        if (n < 31) word[n++] = (char)tolower((unsigned char)**p);
    word[n] = 0;
    return n;
}

/* Splits "text","label" in place; 0 when the line has another form. */
static int split_row(char *line, char **text, char **label) {
    char *middle = strstr(line, "\",\""), *end = strrchr(line, '"');
    if (line[0] != '"' || middle == NULL || end <= middle + 2) return 0;
    *middle = *end = 0;
    *text = line + 1;
    *label = middle + 3;
    return 1;
}

static void learn(bayes *b, const char *text, const char *label) {
    char word[32];
    int  c = find(b->classes[0], sizeof b->classes[0], &b->class_count, MAX_CLASSES, label, 1);
    if (c < 0) stop("training data", "too many classes");
    b->rows[c]++;
    b->all_rows++;
    while (next_word(&text, word)) {
        int w = find(b->words[0], sizeof b->words[0], &b->word_count, MAX_WORDS, word, 1);
        if (w < 0) continue;
        b->count[c][w]++;
        b->total[c]++;
    }
}

static int classify(bayes *b, const char *text) {
    double score[MAX_CLASSES];
    char   word[32];
    int    best = 0;
    for (int c = 0; c < b->class_count; c++) score[c] = log(b->rows[c] / b->all_rows);
    while (next_word(&text, word)) {
        int w = find(b->words[0], sizeof b->words[0], &b->word_count, MAX_WORDS, word, 0);
        for (int c = 0; w >= 0 && c < b->class_count; c++)
            score[c] += log((b->count[c][w] + alpha) / (b->total[c] + alpha * b->word_count));
    }
    for (int c = 1; c < b->class_count; c++)
        if (score[c] > score[best]) best = c;
    return best;
}

/* Learns from a file (test 0) or counts the rows that come out right (test 1). */
static void run(bayes *b, const char *path, int test) {
    static char line[MAX_LINE];
    char       *text, *label;
    long        rows = 0, right = 0;
    FILE       *f = fopen(path, "r");
    if (f == NULL) stop(path, "cannot be opened");
    if (fgets(line, sizeof line, f) == NULL) stop(path, "is empty");
    while (fgets(line, sizeof line, f) != NULL) {
        if (!split_row(line, &text, &label)) stop(path, "a line is not \"text\",\"label\"");
        if (!test) learn(b, text, label);
        else right += strcmp(b->classes[classify(b, text)], label) == 0;
        rows++;
    }
    fclose(f);
    if (test && rows > 0) printf("%s %ld %.2f\n", path, rows, 100.0 * (double)right / (double)rows);
}

int main(int argc, char **argv) {
    static bayes b;
    if (argc < 3) {
        fprintf(stderr, "usage: naive_bayes TRAIN.csv TEST.csv...\n");
        return 2;
    }
    run(&b, argv[1], 0);
    for (int i = 2; i < argc; i++) run(&b, argv[i], 1);
    return 0;
}
