#!/usr/bin/env python3
"""Writes tests/vectors/text_*: what the Hugging Face package `tokenizers` makes of texts.

    gen_vectors_text.py OUT_DIR [--uncased VOCAB]    write the files into OUT_DIR
    gen_vectors_text.py --line N                     show generated line N and its encodings

text_uncased_vocab.txt  a small uncased vocabulary, chosen from VOCAB (else the file is kept)
text_full.txt           texts in full, with ids and byte offsets for five settings
text_lines.txt          a hash for each of 20,000 generated lines; tests/test_text.c generates the
                        same lines (the generators are twins: change both)
text_points.txt         a hash for each block of 256 code points, each alone and in a+c+b
text_truncate.txt       lengths after truncation, and a hash of ids and types

Hashes are CRC-32 over little-endian 32-bit numbers: count, ids, then begin and end of each token.
"""
import codecs
import os
import struct
import sys
import zlib

import tokenizers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(HERE, '..', 'data', 'bert-base-cased-vocab.txt')
VECTORS = os.path.join(HERE, '..', 'tests', 'vectors')
MASK = (1 << 64) - 1
LINES = 20000


class Rng:
    def __init__(self, seed):
        self.s = seed

    def next(self):
        self.s = (self.s + 0x9E3779B97F4A7C15) & MASK
        z = self.s
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    def below(self, n):
        return self.next() % n


PHRASES = [
    'Itching for a week, a rash on both arms, no fever.', 'BP 120/80, HR 72, SpO2 98%.',
    "Pt c/o chest pain x3 days; denies SOB.", 'Hx: T2DM, HTN, CKD stage 3b (eGFR 38).',
    'Started metoprolol 25mg PO b.i.d.', 'WBC 12.4 k/uL, CRP 88 mg/L', 'No known allergies',
    'yellowing of the eyes and dark urine', 'continuous sneezing, shivering and chills',
    'Patient does not have nodal skin eruptions.', 'ECG: ST-elevation V2-V4!', 'temp=38.9C',
    "patient's mother (age 54) had breast cancer", 'f/u in 2 weeks w/ CBC & BMP',
    'muscle_wasting, high_fever', 'Abnormality of the left ventricle', '~10^9 cells/L',
    'http://example.org/a?b=c#d', 'e-mail: nurse@ward-7.example', '50 % -- "improved"',
]
SPECIAL = ['[SEP]', '[CLS]', '[MASK]', '[PAD]', '[UNK]', '[sep]', '[unused1]', '##ing', '[SEP',
           'SEP]']
# (first, count) of code points; a kind of item is a list of them.
RANGES = [
    [(0xC0, 0x190)],
    [(0x370, 0x1C0)],
    [(0x4E00, 0x5200), (0x3400, 0x19C0), (0xF900, 0x200), (0x2B810, 0x20), (0x2B910, 0x20),
     (0x2F800, 0x220), (0x20000, 0xA6E0), (0x3040, 0xC0)],
    [(0xAC00, 11172), (0xAC00, 11172), (0x1100, 0x100)],
    [(0, 0x21), (0x7F, 0x22), (0x2000, 0x70), (0x1680, 1), (0x3000, 1), (0xFEFF, 1), (0xFFF9, 7),
     (0xE000, 2), (0xAD, 1), (0x600, 6), (0xE0001, 0x7F), (0xF0000, 2)],
    [(0x10, 0x10FFE0)],
    [(0, 0x20000)],
    [(0x2010, 0x50), (0x3000, 0x20), (0xFF00, 0x66), (0x2E00, 0x60), (0x55A, 6), (0x966, 0x14)],
    [(0x900, 0x500), (0x1B00, 0x4C), (0x1000, 0xA0), (0xF00, 0x100)],
    [(0x1E00, 0x200)],
    [(0x2100, 0x400), (0x10400, 0x50), (0x1E900, 0x44), (0xFB00, 0x50), (0x1C80, 0x40),
     (0xA640, 0x60), (0x10A0, 0x60), (0x13A0, 0x60), (0xAB70, 0x50), (0x226E, 2), (0x338, 1)],
]
COMBINING = [(0x8D4, 14), (0x1B44, 1), (0x302E, 2), (0xA953, 1), (0x1D165, 2), (0x1D16D, 6),
             (0x1E000, 0x2B), (0x1E944, 7), (0x1D15E, 7), (0x1D1BB, 6), (0x300, 0x70), (0x5B0, 8),
             (0x1133E, 16)]


# Characters that are neither dropped nor of combining class 0, and what decomposes to them. In
# texts with one of these, offsets are not compared: where the canonical order moves such a
# character across a dropped mark, the package's offset is that of the mark.
MOVING = [(0x8D4, 14), (0x1B44, 1), (0x1BAA, 1), (0x1BF2, 2), (0x1DFB, 1), (0x302E, 2), (0xA953, 1),
          (0xA9C0, 1), (0x111C0, 1), (0x11235, 1), (0x1134D, 1), (0x11442, 1), (0x11446, 1),
          (0x116B6, 1), (0x11C3F, 1), (0x1D15E, 9), (0x1D16D, 6), (0x1D1BB, 6), (0x1E000, 43),
          (0x1E944, 7)]
MOVES = {first + i for first, count in MOVING for i in range(count)}


def moving(data):
    return any(ord(c) in MOVES for c in data.decode('utf-8', 'replace'))


def pick(rng, ranges):
    first, count = ranges[rng.below(len(ranges))]
    c = first + rng.below(count)
    return c + 0x800 if 0xD800 <= c < 0xE000 else c


def utf8(c):
    return chr(c).encode('utf-8')


def item(rng, kind, words):
    """Bytes of one item."""
    if kind == 0:
        n = 1 + rng.below(10)
        upper = rng.below(4)
        first = rng.below(26)
        return bytes((65 if upper == 0 or upper == 1 and i == 0 else 97) +
                     (first + i * i * 7) % 26 for i in range(n))
    if kind == 1:
        return words[rng.below(len(words))].replace(b'##', b'')
    if kind == 2:
        return PHRASES[rng.below(len(PHRASES))].encode()
    if kind == 3:
        return bytes(33 + rng.below(94) for _ in range(1 + rng.below(6)))
    if kind == 4:
        out = b''
        for _ in range(1 + rng.below(4)):
            out += bytes([97 + rng.below(26)])
            for _ in range(rng.below(4)):
                out += utf8(0x300 + rng.below(0x70))
        return out
    if kind == 5:
        return bytes(128 + rng.below(128) for _ in range(1 + rng.below(4)))
    if kind == 6:
        c = utf8(pick(rng, RANGES[1 + rng.below(3)]))
        return c[:1 + rng.below(len(c))] + bytes([97 + rng.below(26)])
    if kind == 7:
        return SPECIAL[rng.below(len(SPECIAL))].encode()
    if kind == 8:
        unit = [b'a', b'Z', b'e\xCC\x81', b'\xC3\xA9', b'\xEA\xB0\x80'][rng.below(5)]
        return unit * (94 + rng.below(13))
    if kind == 9:
        out = b'a'
        for _ in range(1 + rng.below(8)):
            out += utf8(pick(rng, COMBINING))
        return out
    ranges = RANGES[kind - 10]
    return b''.join(utf8(pick(rng, ranges)) for _ in range(1 + rng.below(6)))


def line(number, words):
    rng = Rng(number)
    kinds = (4, 14, 21, 21)[number % 4]
    out = b''
    for _ in range(1 + rng.below(24)):
        out += item(rng, rng.below(kinds), words)
        gap = rng.below(10)
        out += b' ' if gap < 6 else b'\n' if gap == 6 else b'\t' if gap == 7 else b''
    return out


def read_vocab(path):
    with open(path, 'rb') as f:
        return f.read().decode('utf-8').split('\n')[:-1]


def make(vocab, lower, strip):
    ids = {w: i for i, w in enumerate(vocab)}
    t = Tokenizer(models.WordPiece(ids, unk_token='[UNK]', max_input_chars_per_word=100))
    t.normalizer = normalizers.BertNormalizer(True, True, strip, lower)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.post_processor = processors.TemplateProcessing(
        single='[CLS]:0 $A:0 [SEP]:0', pair='[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1',
        special_tokens=[('[CLS]', ids['[CLS]']), ('[SEP]', ids['[SEP]'])])
    return t


def settings():
    cased = read_vocab(DATA)
    small = read_vocab(os.path.join(VECTORS, 'text_uncased_vocab.txt'))
    return [('cased', make(cased, False, False)), ('cased lower', make(cased, True, True)),
            ('uncased', make(small, True, True)), ('cased strip', make(cased, False, True)),
            ('cased lower keep', make(cased, True, False))]


def decode(data):
    """The text with U+FFFD for bad sequences, and the byte offset of every character."""
    spans = []

    def note(error):
        spans.append((error.start, error.end))
        return '\ufffd', error.end
    codecs.register_error('note', note)
    text = data.decode('utf-8', 'note')
    at, offsets, bad = 0, [], iter(spans + [(-1, -1)])
    begin, end = next(bad)
    for c in text:
        offsets.append(at)
        if at == begin:
            at = end
            begin, end = next(bad)
        else:
            at += len(c.encode('utf-8'))
    return text, offsets + [at], len(spans)


def encode(tokenizer, data):
    """ids, [(begin, end)] in bytes, bad sequences."""
    text, offsets, bad = decode(data)
    e = tokenizer.encode(text)
    ends = [0] * (len(text) + 1)
    for i in range(len(text)):
        ends[i + 1] = offsets[i + 1]
    return e.ids, [(offsets[a], ends[b]) for a, b in e.offsets], bad


def digest(crc, ids, offsets, reorder):
    numbers = [len(ids)] + list(ids)
    if not reorder:
        for a, b in offsets:
            numbers += [a, b]
    return zlib.crc32(struct.pack('<%dI' % len(numbers), *numbers), crc)


FULL = [
    '', ' ', '\t\n\r ', '\u0301', '\u0301\u0316 \u0300', '\u200b', '\ufffd', '\0', 'a\0b',
    'a\ufffdb', 'Abnormality', 'abnormality', 'no fever', "don't", 'a\u20acb',
    'a$b+c<d=e>f^g|h~i`j', 'a\u2028b', 'a\u2029b', 'a\u0085b', 'a\u000bb', 'a\u200bb', 'a\u00a0b',
    'a\u00adb', 'x\u3000y', 'x\u1680y', '\u0130stanbul', 'I\u0307', '\u03a3\u03a3', '\u039f\u03a3',
    '\u1e9e', 'stra\u00dfe', '\ufb01ne', '\u212a', '\u2126', '\u00c5\u212b', 'caf\u00e9',
    'cafe\u0301', 'na\u00efve', 'r\u00e9sum\u00e9', '\u1ea4\u1ea5', 'a\u1abfb', 'a\u1dfbb',
    'a\u2e52b', 'a\u061db', 'a\u166db', 'a\U000111c9b', '\u4e2d\u6587', 'a\u4e2db', '\uf900',
    '\U0002f800', '\U0002b81f\U0002b820', 'x\U0002b91fy', '\U0002b920', '\u3042\u3044',
    '\uac00\uac01', '\ud55c\uad6d\uc5b4', '\uac00' * 33, '\uac00' * 34, '\uac01' * 33,
    '\uac00' * 40, '\uac00' * 50, '\uac00' * 51, 'a' * 99, 'a' * 100, 'a' * 101, 'a' * 1000,
    'e\u0301' * 100, 'e\u0301' * 101, '\u00e9' * 100, '\u00e9' * 101, 'a' * 100 + ' b',
    'a' * 101 + ' b', 'a' * 100 + '.', 'a' * 99 + '\u00e9', 'a' * 100 + '\u00e9',
    'a' * 100 + '\u0301', '[SEP]', 'a [SEP] b', '[CLS][MASK]', '[sep]', '[unused1]', '##ing', '##',
    '#', 'ing', '\u1d15e', '\U0001d15e\U0001d16d', '\U0001d160', 'a\U0001d16d\U0001d165b',
    'a\U0001d16d\u0903\U0001d165b', 'a\U0001d16d\u0b01\U0001d165b', '\u0bca\u0bcb', '\u0ddd',
    '\u037e', '\u1fef', '\u226e', '\u2260', 'x\u0338=', '\u0344\u0316', '\u0f73\u0f75', '\u0c48',
    '\u0340', '\ue000', 'a\ue000b', '\U000f0000', '\u0378', 'a\u0378b', '\u08e2', 'a\u08e2b',
    'a\U000110cdb', '\ufeffa', '\U000e0001', '\uffff', 'a\ufffeb', '\U0010ffff', '\U0001f600',
    'a\U0001f600b', '\u0660\u0661', '\u00bd', '\u2460', '\u00aa\u00ba', '\u01c5', '\u1fbc',
    '\u13a0', '\uab70', '\U00010400', '\U0001e900', '\u10a0', '\u1c90', '\u2c2f', '\ua7c0',
    '\ua7f5',
]
FULL_BYTES = [
    b'\x80', b'a\x80b', b'\xc0\x80', b'\xc1\xbf', b'\xc2', b'\xc2a', b'\xe0\x80\x80',
    b'\xe0\x9f\xbf', b'\xe0\xa0', b'\xe2\x82', b'\xe2\x82a', b'\xe2\x82\xe2\x82\xac',
    b'\xed\xa0\x80', b'\xed\xbf\xbf', b'\xed\x9f\xbf', b'\xef\xbf\xbe', b'\xf0\x80\x80\x80',
    b'\xf0\x8f\xbf\xbf', b'\xf0\x90\x80', b'\xf0\x90', b'\xf0', b'\xf4\x90\x80\x80',
    b'\xf4\x8f\xbf\xbf', b'\xf5\x80\x80\x80', b'\xff\xfe', b'\xf0\x9f\x98\x80\xf0\x9f\x98',
    b'caf\xe9', b'\xf8\x88\x80\x80\x80', b'x\xf0\x9fy', b'one\xfftwo', b'\xe4\xb8\xad\xe4\xb8',
    b'e\xcc', b'e\xcc\x81\xcc',
]


def escape(data):
    return ''.join(chr(b) if 32 < b < 127 and b != 92 else '\\x%02x' % b for b in data)


def header(what):
    return '# %s: generated by tools/gen_vectors_text.py, tokenizers %s' % (
        what, tokenizers.__version__)


def write(path, rows):
    body = '\n'.join(rows) + '\n'
    with open(path, 'w') as f:
        f.write(rows[0] + ', crc32 of the other lines %08x\n' %
                zlib.crc32(body[len(rows[0]) + 1:].encode()) + body[len(rows[0]) + 1:])
    print(path, len(rows) - 1, 'lines', os.path.getsize(path), 'bytes')


def full(out, words, tokenizers_):
    texts = [s.encode('utf-8', 'surrogatepass') for s in FULL] + FULL_BYTES
    texts += [p.encode() for p in PHRASES]
    texts += [line(LINES + i, words)[:120] for i in range(100)]
    rows = [header('T (R: ids only), invalid count, text; then for each setting ids and offsets')]
    for data in texts:
        rows.append('%s %d %s' % ('R' if moving(data) else 'T', decode(data)[2], escape(data)))
        for _, t in tokenizers_:
            ids, offsets, _ = encode(t, data)
            rows.append('I ' + ' '.join('%d:%d:%d' % (i, a, b) for i, (a, b) in
                                        zip(ids[1:-1], offsets[1:-1])))
    write(os.path.join(out, 'text_full.txt'), rows)


def generated(out, words, tokenizers_):
    rows = [header('hash of generated line 0, 1, ...')]
    for n in range(LINES):
        data = line(n, words)
        reorder = moving(data)
        crc = zlib.crc32(data)
        for _, t in tokenizers_:
            ids, offsets, _ = encode(t, data)
            crc = digest(crc, ids, offsets, reorder)
        rows.append('%08x' % crc)
    write(os.path.join(out, 'text_lines.txt'), rows)


def points(out, tokenizers_):
    """Also with a vocabulary that holds every character, so that no difference hides in [UNK]."""
    every = ['[PAD]', '[UNK]', '[CLS]', '[SEP]']
    for c in range(0x21, 0x110000):
        if not 0xD800 <= c < 0xE000:
            every += [chr(c), '##' + chr(c)]
    cases = tokenizers_ + [('every', make(every, lower, strip))
                           for lower in (False, True) for strip in (False, True)]
    rows = [header('hash of code points 256 * n and following: ids and offsets of c and of a+c+b')]
    for block in range(0x1100):
        crc = 0
        if not 0xD8 <= block < 0xE0:
            for _, t in cases:
                batch = []
                for c in range(block * 256, block * 256 + 256):
                    batch += [chr(c), 'a' + chr(c) + 'b']
                for text, e in zip(batch, t.encode_batch(batch)):
                    width = len(text.encode()) - len(text) + 1 if len(text) == 1 else \
                        len(text.encode()) - 2
                    where = [0, width] if len(text) == 1 else [0, 1, 1 + width, 2 + width]
                    crc = digest(crc, e.ids, [(where[a], where[b]) for a, b in e.offsets], 0)
        rows.append('%08x' % crc)
    write(os.path.join(out, 'text_points.txt'), rows)


def truncate(out, vocab):
    words = [w for w in vocab if w.isascii() and w.isalpha() and w.islower()][:200]
    t = make(vocab, False, False)
    how = ['longest_first', 'only_first', 'only_second']
    rows = [header('a, b (-1: none), max_tokens, strategy, left; n and hash of ids and types; '
                   'or n = -1: refused')]
    lengths = [0, 1, 2, 13, 14, 15, 16, 28, 29, 30, 31, 39, 60, 100]
    for strategy in range(3):
        for left in (0, 1):
            for most in (3, 4, 5, 16, 32, 33):
                for a in lengths:
                    for b in [-1] + lengths:
                        t.enable_truncation(most, strategy=how[strategy],
                                            direction='left' if left else 'right')
                        first, second = ' '.join(words[:a]), ' '.join(words[100:100 + b])
                        try:
                            e = t.encode(first, None if b < 0 else second)
                            if len(e.ids) > most:
                                raise ValueError
                            n = len(e.ids)
                            crc = zlib.crc32(struct.pack('<%dI' % (2 * n), *e.ids, *e.type_ids))
                        except Exception:
                            n, crc = -1, 0
                        rows.append('%d %d %d %d %d %d %08x' % (a, b, most, strategy, left, n, crc))
    write(os.path.join(out, 'text_truncate.txt'), rows)


def small_vocab(source, out):
    """Specials, everything of one character, and every 8th of the rest."""
    kept = []
    for i, w in enumerate(read_vocab(source)):
        bare = w[2:] if w.startswith('##') else w
        if (w.startswith('[') and not w.startswith('[unused')) or len(bare) == 1 or \
                (i > 1000 and i % 8 == 0) or 1996 <= i < 2100:
            kept.append(w)
    with open(os.path.join(out, 'text_uncased_vocab.txt'), 'w') as f:
        f.write('\n'.join(kept) + '\n')
    print(len(kept), 'entries in text_uncased_vocab.txt')


def main(argv):
    if '--line' in argv:
        words = [w.encode() for w in read_vocab(DATA)]
        data = line(int(argv[argv.index('--line') + 1]), words)
        print(escape(data), 'offsets not compared' if moving(data) else '')
        for name, t in settings():
            ids, offsets, bad = encode(t, data)
            print(name, bad, ' '.join('%d:%d:%d' % (i, a, b) for i, (a, b) in zip(ids, offsets)))
        return 0
    out = argv[0]
    if '--uncased' in argv:
        small_vocab(argv[argv.index('--uncased') + 1], out)
    vocab = read_vocab(DATA)
    words = [w.encode() for w in vocab]
    all_settings = settings()
    full(out, words, all_settings)
    truncate(out, vocab)
    generated(out, words, all_settings)
    points(out, all_settings)
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
