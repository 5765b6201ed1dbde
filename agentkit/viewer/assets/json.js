// @ts-check
/** JSON to read. Texts are laid out as they are, so that no number and no double key is lost. */

import { asText } from './format.js';

const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\],:]|[^\s{}[\],:"]+/g;
/** Characters of a text that is still laid out. */
const MOST = 400_000;
/** Characters of JSON that stands in one line. */
const SHORT = 60;

/**
 * Return JSON with a line for each member; null if it is not JSON.
 * @param {string} text
 * @returns {string | null}
 */
export function laidOut(text) {
  const head = text.trimStart()[0];
  if ((head !== '{' && head !== '[') || text.length > MOST) return null;
  try {
    JSON.parse(text);
  } catch {
    return null;
  }
  const tokens = text.match(TOKEN) ?? [];
  const line = tokens.length < SHORT ? tokens.map((token) => (token === ',' || token === ':' ? `${token} ` : token)).join('') : '';
  if (line && line.length <= SHORT) return line;
  /** @type {string[]} */
  const out = [];
  let depth = 0;
  tokens.forEach((token, index) => {
    const next = tokens[index + 1];
    const newline = () => out.push('\n', '  '.repeat(Math.min(depth, 60)));
    if (token === '{' || token === '[') {
      out.push(token);
      if (next === '}' || next === ']') return;
      depth += 1;
      newline();
    } else if (token === '}' || token === ']') {
      const before = tokens[index - 1];
      if (before !== '{' && before !== '[') {
        depth -= 1;
        newline();
      }
      out.push(token);
    } else if (token === ',') {
      out.push(token);
      newline();
    } else {
      out.push(token === ':' ? ': ' : token);
    }
  });
  return out.join('');
}

/**
 * Return a value as text to read: text as it is, JSON laid out.
 * @param {any} value
 * @returns {string}
 */
export function readable(value) {
  const text = asText(value);
  return laidOut(text) ?? text;
}

const PART = /("[^"\\]*(?:\\.[^"\\]*)*")(\s*:)?|\b(?:true|false|null)\b|-?\b\d+(?:\.\d+)?(?:[eE][+-]?\d+)?\b/g;

/**
 * Return laid-out JSON with its parts in elements, to be coloured.
 * @param {string} text
 * @returns {(Node | string)[]}
 */
export function coloured(text) {
  /** @type {(Node | string)[]} */
  const out = [];
  let last = 0;
  for (const match of text.matchAll(PART)) {
    out.push(text.slice(last, match.index));
    const kind = match[1] ? (match[2] ? 'key' : 'str') : /[a-z]/.test(match[0][0]) ? 'lit' : 'num';
    const part = document.createElement('span');
    part.className = `j-${kind}`;
    part.textContent = match[1] ?? match[0];
    out.push(part, match[2] ?? '');
    last = match.index + match[0].length;
  }
  out.push(text.slice(last));
  return out;
}
