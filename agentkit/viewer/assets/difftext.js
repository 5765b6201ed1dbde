// @ts-check
/** Two texts side by side, or one below the other where there is no room. */

import { fill, h } from './dom.js';
import { visible } from './format.js';
import { readable } from './json.js';
import { compared } from './textdiff.js';

const AROUND = 3;
const MOST = 60_000;

/**
 * Return the lines in which two values differ, with some around them.
 * @param {any} a
 * @param {any} b
 * @param {[string, string]} names
 */
export function differing(a, b, names) {
  const [left, right] = [a, b].map((one) => visible(readable(one).slice(0, MOST)).split('\n'));
  const lines = compared(left, right);
  const table = h('div', { class: 'diff', role: 'table', 'aria-label': `${names[0]} and ${names[1]}` });
  const near = lines.map((_, index) => lines.slice(Math.max(0, index - AROUND), index + AROUND + 1).some((one) => one.kind !== 'same'));
  /** @type {HTMLElement[]} */
  const rows = [h('div', { class: 'diff-row diff-head', role: 'row' }, cell('columnheader', '', names[0]), cell('columnheader', '', names[1]))];
  for (let index = 0; index < lines.length;) {
    if (!near[index]) {
      let next = index;
      while (next < lines.length && !near[next]) next += 1;
      if (rows.length > 1 || next < lines.length) rows.push(h('div', { class: 'diff-gap', role: 'row' }, h('span', { role: 'cell' }, `${next - index} equal lines`)));
      index = next;
    } else if (lines[index].kind === 'same') {
      rows.push(row(['same', lines[index].text], ['same', lines[index].text]));
      index += 1;
    } else {
      const gone = /** @type {string[]} */ ([]), more = /** @type {string[]} */ ([]);
      for (; index < lines.length && lines[index].kind !== 'same'; index += 1) (lines[index].kind === 'gone' ? gone : more).push(lines[index].text);
      for (let one = 0; one < Math.max(gone.length, more.length); one += 1) {
        rows.push(row(gone[one] === undefined ? ['', ''] : ['gone', gone[one]], more[one] === undefined ? ['', ''] : ['new', more[one]], gone[one], more[one]));
      }
    }
    if (rows.length > 600) {
      rows.push(h('div', { class: 'diff-gap', role: 'row' }, h('span', { role: 'cell' }, 'and more')));
      break;
    }
  }
  fill(table, rows);
  return table;
}

/**
 * @param {[string, string]} left
 * @param {[string, string]} right
 * @param {string} [a]
 * @param {string} [b]
 */
function row(left, right, a, b) {
  const parts = a !== undefined && b !== undefined ? inner(a, b) : null;
  return h('div', { class: 'diff-row', role: 'row' }, cell('cell', left[0], parts ? parts[0] : left[1]), cell('cell', right[0], parts ? parts[1] : right[1]));
}

/**
 * @param {string} role
 * @param {string} kind
 * @param {any} content
 */
function cell(role, kind, content) {
  return h('div', { class: `diff-cell ${kind}`, role }, kind && role === 'cell' ? h('span', { class: 'sr' }, kind === 'gone' ? 'removed: ' : kind === 'new' ? 'added: ' : '') : '', content);
}

/**
 * Mark the stretch in which two lines differ.
 * @param {string} a
 * @param {string} b
 */
function inner(a, b) {
  let head = 0, tail = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head += 1;
  while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail += 1;
  return [a, b].map((one) => [one.slice(0, head), h('mark', {}, one.slice(head, one.length - tail)), one.slice(one.length - tail)]);
}
