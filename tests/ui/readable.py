"""What a page in a browser shows to eyes, screen readers and keyboards: contrast of its text, names
of its buttons and fields, and whether the focus can be seen. Computed from styles, by the formulas
of WCAG 2.2.
"""

from __future__ import annotations

NORMAL, LARGE = 4.5, 3.0  # WCAG 2.2, 1.4.3: large is 24 px, or 18.66 px and bold

# Rows {text, ratio, needed} of all visible text that is too pale.
PALE = """([normal, large]) => {
  const pixel = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const channels = colour => {  // red, green and blue of 0 to 255, opacity of 0 to 1
    pixel.clearRect(0, 0, 1, 1);
    pixel.fillStyle = colour;
    pixel.fillRect(0, 0, 1, 1);
    const [red, green, blue, alpha] = pixel.getImageData(0, 0, 1, 1).data;
    return [red, green, blue, alpha / 255];
  };
  const over = (front, back) => [0, 1, 2].map(i => front[i] * front[3] + back[i] * (1 - front[3])).concat(1);
  const luminance = colour => {
    const linear = colour.slice(0, 3).map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const behind = element => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(channels(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((back, front) => over(front, back), [255, 255, 255, 1]);
  };
  const visible = element => {
    const box = element.getBoundingClientRect(), style = getComputedStyle(element);
    return box.width > 1 && box.height > 1 && element.checkVisibility({opacityProperty: true, visibilityProperty: true})
      && style.clipPath === 'none' && !element.closest(':disabled, [aria-disabled=true], .wb-unseen');
  };
  const rows = [];
  const measure = (element, text, style) => {
    const back = behind(element), front = over(channels(style.color), back);
    const [dark, light] = [luminance(front), luminance(back)].sort((a, b) => a - b);
    const ratio = (light + 0.05) / (dark + 0.05), px = parseFloat(style.fontSize);
    const needed = px >= 24 || (px >= 18.66 && style.fontWeight >= 700) ? large : normal;
    if (ratio < needed) rows.push({text: text.trim().slice(0, 40), ratio: Math.round(ratio * 100) / 100, needed});
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!/[\\p{L}\\p{N}]/u.test(node.data) || ['SCRIPT', 'STYLE'].includes(element.tagName) || !visible(element)) continue;
    measure(element, node.data, getComputedStyle(element));
  }
  for (const field of document.querySelectorAll('input, textarea')) {
    if (!visible(field) || ['checkbox', 'radio', 'range'].includes(field.type)) continue;
    if (field.value) measure(field, field.value, getComputedStyle(field));
    else if (field.placeholder) measure(field, field.placeholder, getComputedStyle(field, '::placeholder'));
  }
  return rows;
}"""

# The beginnings of visible buttons and fields that have no name.
NAMELESS = """() => {
  const reachable = 'button, a[href], input, select, textarea, [role=tab], [role=slider], [role=progressbar]';
  const label = element => [...(element.labels || [])].map(each => each.textContent).join(' ');
  const pointed = element => (element.getAttribute('aria-labelledby') || '').split(' ')
    .map(id => id && document.getElementById(id)?.textContent || '').join(' ');
  const content = element => ['INPUT', 'SELECT', 'TEXTAREA'].includes(element.tagName) ? '' : element.textContent;
  const within = element => [...element.querySelectorAll('img, [aria-label]')].map(each => each.alt || each.ariaLabel).join(' ');
  const name = element => [element.getAttribute('aria-label'), pointed(element), label(element), content(element),
    within(element), element.title].map(each => (each || '').trim()).find(Boolean);
  return [...document.querySelectorAll(reachable)]
    .filter(element => element.checkVisibility() && element.getBoundingClientRect().width > 0 && !name(element))
    .map(element => element.outerHTML.slice(0, 120));
}"""

# The beginning of what has the focus, and whether it looks otherwise than without.
FOCUS = """() => {
  const element = document.activeElement;
  const style = getComputedStyle(element);
  const box = element.getBoundingClientRect();
  const ring = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 1;
  return {html: element.outerHTML.slice(0, 120), on: element !== document.body, seen: box.width > 0,
    top: Math.round(box.top + scrollY), left: Math.round(box.left), ring};
}"""


def pale(tab) -> list[dict]:
    return tab.page.evaluate(PALE, [NORMAL, LARGE])


def nameless(tab) -> list[str]:
    return tab.page.evaluate(NAMELESS)


def unmarked(tab, steps: int) -> list[str]:
    """What the Tab key reaches in so many presses without a ring around it."""
    found = []
    for _ in range(steps):
        tab.page.keyboard.press("Tab")
        focus = tab.page.evaluate(FOCUS)
        if focus["on"] and not focus["ring"]:
            found.append(focus["html"])
    return found
