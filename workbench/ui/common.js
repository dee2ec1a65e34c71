// Shared by the components; follows the Vega bundle in one file (components.py). Charts follow the page's light or dark mode.
window.workbench = {
  theme(spec, narrow) {
    const dark = document.body.classList.contains('dark');
    const ink = dark ? '#e4e4e7' : '#27272a', faint = dark ? '#52525b' : '#d4d4d8';
    const text = {labelColor: ink, titleColor: ink, labelFontSize: 11, titleFontSize: 12, titleFontWeight: 500};
    const config = {background: 'transparent', font: 'system-ui, sans-serif', text: {color: ink}, title: {color: ink}, view: {stroke: null},
      axis: {...text, domainColor: faint, tickColor: faint, gridColor: faint, gridOpacity: 0.5},
      legend: {...text, orient: narrow ? 'bottom' : 'right'}};
    return {...structuredClone(spec), config};
  },
  // Python draws plots as wide as WIDTH; here they get the room there is, and names over them their share of it.
  fit(node, width, ratio = 1) {
    if (Array.isArray(node)) node.forEach(child => this.fit(child, width, ratio));
    else if (node && typeof node === 'object') {
      if (node.width > 300) { ratio = width / node.width; node.width = width; }
      if (node.mark?.limit) node.mark.limit *= ratio;
      for (const key of ['vconcat', 'hconcat', 'layer']) this.fit(node[key], width, ratio);
    }
    return node;
  },
  // Draw one chart after the other, and of several requests only the last: two at once would mix. Null when a later request came.
  draw(host, make) {
    const request = host.request = (host.request || 0) + 1;
    const drawn = (host.drawing || Promise.resolve()).then(async () => {
      if (request !== host.request || !host.isConnected) return null;
      host.result?.finalize();
      const theme = document.body.classList.contains('dark') ? 'dark' : 'light';
      return host.result = await vegaEmbed(host, make(), {actions: false, renderer: 'canvas', tooltip: {theme}});
    });
    host.drawing = drawn.catch(() => null);
    return drawn;
  },
};
