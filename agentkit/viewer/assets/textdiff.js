// @ts-check
/** What differs between two texts, line by line, and between two lists. */

/** @typedef {{kind: 'same' | 'gone' | 'new', text: string}} Line */

/** Lines beyond which only what is before and after the difference is found. */
const MOST = 1500;

/**
 * Compare two lists; what they begin and end with alike is found first.
 * @param {string[]} a
 * @param {string[]} b
 * @returns {Line[]}
 */
export function compared(a, b) {
  let head = 0, tail = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head += 1;
  while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail += 1;
  /** @type {(kind: Line['kind']) => (text: string) => Line} */
  const line = (kind) => (text) => ({ kind, text });
  const left = a.slice(head, a.length - tail), right = b.slice(head, b.length - tail);
  const middle = left.length * right.length > MOST * MOST ? [...left.map(line('gone')), ...right.map(line('new'))] : matched(left, right);
  return [...a.slice(0, head).map(line('same')), ...middle, ...a.slice(a.length - tail).map(line('same'))];
}

/**
 * Return the shortest way from one list to the other, by their longest common part.
 * @param {string[]} a
 * @param {string[]} b
 * @returns {Line[]}
 */
function matched(a, b) {
  const width = b.length + 1, common = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      common[i * width + j] = a[i] === b[j] ? common[(i + 1) * width + j + 1] + 1 : Math.max(common[(i + 1) * width + j], common[i * width + j + 1]);
    }
  }
  /** @type {Line[]} */
  const out = [];
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      out.push({ kind: 'same', text: a[i] });
      i += 1;
      j += 1;
    } else if (j >= b.length || (i < a.length && common[(i + 1) * width + j] >= common[i * width + j + 1])) {
      out.push({ kind: 'gone', text: a[i] });
      i += 1;
    } else {
      out.push({ kind: 'new', text: b[j] });
      j += 1;
    }
  }
  return out;
}
