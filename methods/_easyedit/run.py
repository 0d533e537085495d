def run(request, folder):
    if "sleep" in request:
        import time; time.sleep(60)
    if "die" in request:
        import os; print("bad things"); os._exit(3)
    if "net" in request:
        import urllib.request; urllib.request.urlopen("http://example.com")
    print("hello"); return {"ok": str(folder)}, None
