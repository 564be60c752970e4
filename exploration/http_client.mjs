// A whole client of a server's JSON, for browsers and Node 18 or newer: `node http_client.mjs http://localhost:56789`.
// The server has to be started with --http; docs/http.md tells what may be asked.

export class RemoteEnvironment {
  constructor(url, { token, ...settings } = {}) {
    this.url = `${url}/v1/sessions`;
    this.token = token;
    this.settings = settings; // environment, kwargs, render_mode, arrays
  }

  // Opens a session at the first call.
  async reset({ seed, options } = {}) {
    if (this.session) return this.ask("POST", `/${this.session}/reset`, { seed, options });
    const { session, observation, info, ...facts } = await this.ask("POST", "", { ...this.settings, seed, options });
    Object.assign(this, { session, ...facts }); // observation_space, action_space, exposed, lease
    return { observation, info };
  }

  step(action) {
    return this.ask("POST", `/${this.session}/step`, { action });
  }

  async call(name, ...args) {
    return (await this.ask("POST", `/${this.session}/call`, { name, args })).value;
  }

  async close() {
    const session = this.session;
    this.session = undefined;
    if (session) await this.ask("DELETE", `/${session}`);
  }

  // Asks again where the connection breaks: by its id the server knows the request, and takes a step once.
  async ask(method, path, data) {
    const headers = this.token ? { Authorization: `Bearer ${this.token}` } : {};
    let body;
    if (data) {
      headers["Content-Type"] = "application/json";
      body = JSON.stringify({ ...data, request: crypto.randomUUID() });
    }
    for (let attempt = 0; ; attempt++) {
      let response;
      try {
        response = await fetch(this.url + path, { method, headers, body });
      } catch (error) {
        if (attempt === 4) throw error;
        await new Promise((resolve) => setTimeout(resolve, 100 * 2 ** attempt));
        continue;
      }
      const answer = await response.json();
      if (!response.ok) throw new Error(`${response.status}: ${answer.detail}`);
      return answer;
    }
  }
}

// Run by itself, it plays a few steps of a Discrete space.
if (typeof process !== "undefined" && process.argv[1]?.endsWith("http_client.mjs")) {
  const environment = new RemoteEnvironment(process.argv[2] ?? "http://localhost:56789");
  console.log(JSON.stringify(await environment.reset({ seed: 1 })));
  for (const action of [0, 1, 1, 0]) console.log(JSON.stringify(await environment.step(action)));
  await environment.close();
}
