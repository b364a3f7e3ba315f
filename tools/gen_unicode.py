#!/usr/bin/env python3
"""Writes the tables of section [D1] of diseasepred.h and checks them.

The target is the behaviour of the Hugging Face package `tokenizers` (BertTokenizerFast), whose
tables mix Unicode versions. So the package is asked about every scalar value; the answers are
packed; the packed tables are read back by the same rules as the C code uses and compared with
the answers for all four settings of (lower case, strip accents); and every difference between
the answers and Python's unicodedata is counted (--list: listed).

    gen_unicode.py [--list] [--write diseasepred.h | --check diseasepred.h]
"""
import hashlib
import re
import sys
import unicodedata

import tokenizers
from tokenizers import normalizers, pre_tokenizers

PLAIN, REMOVE, BLANK, CJK, PUNCT, MARK, MARK0, COMB = range(8)
CLASSES = (7, 9, 216, 224, 226, 230)  # combining classes of characters that are not dropped
HANGUL, MULTI = 13, 14
DIGITS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'
SCALARS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def normalizer(clean=False, cjk=False, strip=False, lower=False):
    return normalizers.BertNormalizer(clean_text=clean, handle_chinese_chars=cjk,
                                      strip_accents=strip, lowercase=lower).normalize_str


def ask():
    """What the package does with every scalar value, alone and inside a word."""
    clean, cjk = normalizer(clean=True), normalizer(cjk=True)
    strip, lower = normalizer(strip=True), normalizer(lower=True)
    nfd = normalizers.NFD().normalize_str
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    high, low = '\U0001D16D', '\U0001D165'  # classes 226 and 216: they change places ...
    kind, decomposed, lowered = {}, {}, {}
    for cp in SCALARS:
        c = chr(cp)
        word = 'a' + c + 'b'
        cleaned = clean(word)
        s, d = strip(c), nfd(c)
        order = nfd(high + c + low)
        moves = order.index(low) < order.rindex(high)  # ... unless a class 0 stands between
        k = PLAIN
        if cleaned == 'ab':
            k = REMOVE
        elif cleaned == 'a b':
            k = BLANK
        elif cleaned != word:
            raise SystemExit('U+%04X: unexpected clean-up %r' % (cp, cleaned))
        elif cjk(word) != word:
            k = CJK
        elif s == '':
            k = MARK if moves else MARK0
        elif len(split(word)) == 3:
            k = PUNCT
        elif d == c and moves:
            k = COMB + CLASSES.index(unicodedata.combining(c))
        kind[cp] = k
        if s != c and k not in (REMOVE, BLANK, MARK, MARK0):
            decomposed[cp] = s
        if lower(c) != c:
            lowered[cp] = lower(c)
    return kind, decomposed, lowered


def check_order(kind):
    """The classes of unicodedata must order characters as the package does."""
    nfd = normalizers.NFD().normalize_str
    comb = [c for c, k in kind.items() if COMB <= k < HANGUL]
    for a in comb:
        for b in comb:
            swapped = nfd(chr(a) + chr(b)) != chr(a) + chr(b)
            assert swapped == (kind[a] > kind[b]), 'order of U+%04X U+%04X' % (a, b)
    return len(comb)


def find_rules(table):
    """Packs {from: to} into (first, count, stride, to, step): first + i * stride becomes
    to + i * step."""
    table, out = dict(table), []
    while table:
        c, best = min(table), (0, 1, 0)
        for stride in (1, 2, 3, 4):
            for step in (0, 1, 2, 3, 4):
                n = 1
                while table.get(c + n * stride) == table[c] + n * step:
                    n += 1
                if n > best[0]:
                    best = (n, stride, step)
        n, stride, step = best
        out.append((c, n, stride, table[c], step))
        for i in range(n):
            del table[c + i * stride]
    return out


def hangul(c):
    s = c - 0xAC00
    t = s % 28
    return chr(0x1100 + s // 588) + chr(0x1161 + s % 588 // 28) + (chr(0x11A7 + t) if t else '')


def pack(kind, decomposed, lowered):
    runs, last = [], None
    for cp in range(0x110000):
        k = kind.get(cp, PLAIN)
        if k != last:
            runs.append([k, 0])
            last = k
        runs[-1][1] += 1
    single = {c: ord(s) for c, s in decomposed.items() if len(s) == 1}
    compat = {c: t for c, t in single.items() if kind[c] == CJK}
    assert all(kind[t] == CJK for t in compat.values())
    for c in compat:
        del single[c]
    multi = {c: s for c, s in decomposed.items() if len(s) > 1 and not 0xAC00 <= c < 0xD7A4}
    assert all(hangul(c) == decomposed[c] for c in range(0xAC00, 0xD7A4))
    special = {c: s for c, s in lowered.items() if len(s) > 1}
    assert special == {0x130: 'i\u0307'}
    spans = []
    for c in sorted(compat):
        if spans and spans[-1][0] + len(spans[-1][1]) == c:
            spans[-1][1].append(compat[c])
        else:
            spans.append((c, [compat[c]]))
    return {
        'runs': [n << 4 | k for k, n in runs],
        'lower': find_rules({c: ord(s) for c, s in lowered.items() if len(s) == 1}),
        'base': find_rules(single),
        'spans': spans,
        'multi': [[c] + [ord(x) for x in s] + [0] * (3 - len(s)) for c, s in multi.items()],
    }


def unpack(t, lower, strip):
    """Entries (kind, text) as dp__fold_build makes them; None: the character itself."""
    kind, text = [], {}
    for r in t['runs']:
        kind += [r & 15] * (r >> 4)
    if lower:
        for c, n, stride, to, step in t['lower']:
            for i in range(n):
                text[c + i * stride] = chr(to + i * step)
        if not strip:
            text[0x130] = 'i\u0307'
    if strip:
        def put(c, to):
            text[c] = ''.join(text.get(x, chr(x)) for x in to)
            if len(to) == 1:
                kind[c] = kind[to[0]]
        for c, n, stride, to, step in t['base']:
            for i in range(n):
                put(c + i * stride, [to + i * step])
        for c, targets in t['spans']:
            for i, to in enumerate(targets):
                put(c + i, [to])
        for c, *to in t['multi']:
            put(c, [x for x in to if x])
        for c in range(0xAC00, 0xD7A4):
            text[c] = hangul(c)
    else:
        kind = [PLAIN if k in (MARK, MARK0) or k >= COMB else k for k in kind]
    return kind, text


def check_packed(t):
    """The packed tables against the package, every scalar value, every setting."""
    wrong = 0
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    for lower in (False, True):
        for strip in (False, True):
            kind, text = unpack(t, lower, strip)
            norm = normalizer(True, True, strip, lower)
            for cp in SCALARS:
                k = kind[cp]
                own = text.get(cp, chr(cp))
                want = {REMOVE: '', BLANK: ' ', MARK: '', MARK0: '', CJK: ' ' + own + ' '}
                got = norm('a' + chr(cp) + 'b')
                pieces = [w for w, _ in split(got)]
                model = ['ab'] if k in (REMOVE, MARK, MARK0) else ['a', 'b'] if k == BLANK else \
                    ['a', own, 'b'] if k in (CJK, PUNCT) else ['a' + own + 'b']
                if got != 'a' + want.get(k, own) + 'b' or pieces != model:
                    wrong += 1
                    print('U+%04X lower=%d strip=%d: %r %r' % (cp, lower, strip, got, pieces))
    return wrong


def compare(kind, decomposed, lowered, show):
    """Differences between the package and this Python's unicodedata."""
    def listed(name, points):
        print('%-58s %6d' % (name, len(points)))
        if show:
            for p in points:
                print('    U+%04X %s %s' % (p, unicodedata.category(chr(p)),
                                            unicodedata.name(chr(p), '')))
    cat = {c: unicodedata.category(chr(c)) for c in SCALARS}
    print('tokenizers %s against unicodedata %s' %
          (tokenizers.__version__, unicodedata.unidata_version))
    removed = {c for c in SCALARS if cat[c] in ('Cc', 'Cf', 'Co') or c == 0xFFFD}
    removed -= {9, 10, 13}
    ours = {c for c in SCALARS if kind[c] == REMOVE}
    listed('Cc, Cf, Co kept', sorted(removed - ours))
    listed('removed, but not Cc, Cf, Co or U+FFFD', sorted(ours - removed))
    blank = {9, 10, 13} | {c for c in SCALARS if cat[c] in ('Zs', 'Zl', 'Zp')}
    ours = {c for c in SCALARS if kind[c] == BLANK}
    listed('white space that differs', sorted(blank ^ ours))
    punct = {c for c in SCALARS if cat[c][0] == 'P' or 32 < c < 127 and not chr(c).isalnum()}
    ours = {c for c in SCALARS if kind[c] == PUNCT}
    listed('P* that does not split', sorted(punct - ours))
    listed('splits, but is not P* or ASCII', sorted(ours - punct))
    mark = {c for c in SCALARS if cat[c] == 'Mn'}
    ours = {c for c in SCALARS if kind[c] in (MARK, MARK0)} - \
        {c for c in SCALARS if unicodedata.decomposition(chr(c)) and cat[c] != 'Mn'}
    listed('Mn kept', sorted(mark - ours))
    listed('dropped, but not Mn', sorted(ours - mark))
    lower = {c: chr(c).lower() for c in SCALARS}
    listed('lower case that differs',
           [c for c in SCALARS if lower[c] != lowered.get(c, chr(c))])
    nfd = normalizers.NFD().normalize_str
    listed('decomposition that differs',
           [c for c in SCALARS if nfd(chr(c)) != unicodedata.normalize('NFD', chr(c))])


def lines(items, indent='    '):
    out, row = [], indent
    for item in items:
        if len(row) + len(item) > 99:
            out.append(row.rstrip())
            row = indent
        row += item
    return out + [row.rstrip()]


def number(x):
    """A number as dp__uc_number reads it."""
    v = 2 * x if x >= 0 else -2 * x - 1
    out = DIGITS[v & 31]
    while v > 31:
        v >>= 5
        out = DIGITS[32 + (v & 31)] + out
    return out


def table(name, numbers):
    text = ''.join(map(number, numbers))
    rows = ['    "%s"' % text[i:i + 93] for i in range(0, len(text), 93)]
    return ['static const char dp__uc_%s[] =' % name] + rows[:-1] + [rows[-1] + ';', '']


def render(t):
    def rules(rows):
        out, last, target = [], 0, 0
        for c, n, stride, to, step in rows:
            out += [c - last, n, stride * 8 + step, to - target]
            last, target = c, to
        return out
    body = ['/* Runs of characters of one kind, from U+0000 on: length * 16 + kind. */']
    body += table('runs', t['runs'])
    body += ['/* Rules of four numbers: first, count, stride * 8 + step, to; first and to as '
             'distances from those',
             ' * of the rule before. They say: first + i * stride becomes to + i * step, '
             'i < count. */',
             '',
             '/* Lower case, one character to one (U+0130 alone has two: see dp__fold_build). */']
    body += table('lower', rules(t['lower']))
    body += ['/* What is left of a canonical decomposition without its marks, where it is '
             'one character. */']
    body += table('base', rules(t['base']))
    body += ['/* The same for CJK compatibility ideographs: first, count, their characters as '
             'distances from',
             ' * the one before. */']
    flat, last = [], 0
    for c, targets in t['spans']:
        flat += [c, len(targets)]
        for to in targets:
            flat.append(to - last)
            last = to
    body += table('compat', flat)
    body += ['/* Where two or three characters are left; 0 fills up. The last is U+0130 in '
             'lower case. */',
             'static const uint32_t dp__uc_multi[][4] = {']
    body += lines('{%s},' % ','.join(map(str, m)) for m in t['multi'] + [[0x130, 0x69, 0x307, 0]])
    body += ['};']
    return body


def main(argv):
    show = '--list' in argv
    kind, decomposed, lowered = ask()
    print('characters with a combining class that are not dropped: %d' % check_order(kind))
    tables = pack(kind, decomposed, lowered)
    wrong = check_packed(tables)
    print('packed tables against the package, 4 settings: %d differences' % wrong)
    compare(kind, decomposed, lowered, show)
    body = render(tables)
    digest = hashlib.sha256('\n'.join(body).encode()).hexdigest()[:16]
    mark = '/* Generated by tools/gen_unicode.py from tokenizers %s; sha256 %s. */' % \
        (tokenizers.__version__, digest)
    block = '\n'.join([mark] + body + ['/* End of generated tables. */'])
    print('%d lines, longest %d' % (len(body) + 2, max(map(len, body))))
    for option in ('--write', '--check'):
        if option in argv:
            path = argv[argv.index(option) + 1]
            text = open(path).read()
            pattern = r'/\* Generated by tools/gen_unicode\.py.*?/\* End of generated tables\. \*/'
            new = re.sub(pattern, lambda m: block, text, flags=re.S)
            if option == '--write':
                open(path, 'w').write(new)
            elif new != text or block not in text:
                wrong += 1
                print('%s does not hold these tables' % path)
    return wrong != 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
